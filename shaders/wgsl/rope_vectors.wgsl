// rope_pairs, four pairs at a time.
#import vectors
#import rope_pairs
