// cross_entropy_grad_rows, four elements at a time.
#import vectors
#import team_barriers
#import cross_entropy_grad_rows
