// reduce_columns_shared, of indices.
#import reduce_columns_shared
#import reduce_indices
