// rope_pairs, pair by pair.
#import scalars
#import rope_pairs
