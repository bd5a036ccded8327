// norm_rows, four elements at a time.
#import vectors
#import team_barriers
#import norm_rows
#import store
