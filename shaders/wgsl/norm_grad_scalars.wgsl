// norm_grad_rows, element by element.
#import scalars
#import team_barriers
#import norm_grad_rows
