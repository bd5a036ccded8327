// reduce_rows, of indices.
#import reduce_rows
#import reduce_indices
