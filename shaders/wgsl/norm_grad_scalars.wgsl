// norm_grad_rows, element by element.
#import scalars
#import norm_grad_rows
