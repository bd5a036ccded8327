// reduce_rows, of indices, by subgroups.
#import team_subgroups
#import reduce_rows
#import reduce_indices
