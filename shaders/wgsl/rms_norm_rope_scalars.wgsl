// rms_norm_rope_rows, element by element.
#import scalars
#import rms_norm_rope_rows
