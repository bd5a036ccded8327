// norm_weight_grad_rows, element by element.
#import scalars
#import norm_weight_grad_rows
