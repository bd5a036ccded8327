// cross_entropy_rows, element by element.
#import scalars
#import cross_entropy_rows
