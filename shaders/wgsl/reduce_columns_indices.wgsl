// reduce_columns, of indices.
#import reduce_columns
#import reduce_indices
