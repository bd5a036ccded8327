// reduce_rows, of values.
#import reduce_rows
#import reduce_values
