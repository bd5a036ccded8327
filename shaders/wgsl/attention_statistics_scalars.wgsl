// attention_statistics_rows, element by element.
#import scalars
#import team_barriers
#import attention_statistics_rows
