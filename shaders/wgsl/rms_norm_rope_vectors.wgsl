// rms_norm_rope_rows, four elements at a time.
#import vectors
#import rms_norm_rope_rows
