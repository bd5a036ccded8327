// rms_norm_rope_rows, four elements at a time.
#import vectors
#import team_barriers
#import rms_norm_rope_rows
