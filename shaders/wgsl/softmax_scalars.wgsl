// softmax_rows, element by element.
#import scalars
#import team_barriers
#import softmax_rows
