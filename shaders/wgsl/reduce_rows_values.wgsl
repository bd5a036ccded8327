// reduce_rows, of values.
#import team_barriers
#import reduce_rows
#import reduce_values
