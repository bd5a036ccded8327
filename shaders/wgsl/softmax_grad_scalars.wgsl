// softmax_grad_rows, element by element.
#import scalars
#import softmax_grad_rows
