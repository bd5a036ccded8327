// rms_norm_rope_rows, four elements at a time, by subgroups.
#import vectors
#import team_subgroups
#import rms_norm_rope_rows
