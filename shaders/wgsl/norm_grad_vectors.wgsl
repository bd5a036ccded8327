// norm_grad_rows, four elements at a time.
#import vectors
#import team_barriers
#import norm_grad_rows
