// rms_norm_rope_grad_rows, element by element.
#import scalars
#import team_barriers
#import rms_norm_rope_grad_rows
