// reduce_columns, of values.
#import reduce_columns
#import reduce_values
