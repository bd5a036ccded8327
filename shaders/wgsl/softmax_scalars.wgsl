// softmax_rows, element by element.
#import scalars
#import softmax_rows
