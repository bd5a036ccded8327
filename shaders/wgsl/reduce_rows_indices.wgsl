// reduce_rows, of indices.
#import team_barriers
#import reduce_rows
#import reduce_indices
