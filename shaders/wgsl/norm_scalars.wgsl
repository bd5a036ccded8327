// norm_rows, element by element.
#import scalars
#import norm_rows
#import store
