// norm_rows, four elements at a time, by subgroups.
#import vectors
#import team_subgroups
#import norm_rows
#import store
