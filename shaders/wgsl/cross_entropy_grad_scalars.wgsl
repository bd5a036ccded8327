// cross_entropy_grad_rows, element by element.
#import scalars
#import team_barriers
#import cross_entropy_grad_rows
