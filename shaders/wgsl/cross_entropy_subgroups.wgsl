// cross_entropy_rows, four elements at a time, by subgroups.
#import vectors
#import team_subgroups
#import cross_entropy_rows
