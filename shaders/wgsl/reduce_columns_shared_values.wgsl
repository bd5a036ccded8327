// reduce_columns_shared, of values.
#import reduce_columns_shared
#import reduce_values
