// reduce_rows, of values, by subgroups.
#import team_subgroups
#import reduce_rows
#import reduce_values
