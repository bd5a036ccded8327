// cross_entropy_grad_rows, element by element.
#import scalars
#import cross_entropy_grad_rows
