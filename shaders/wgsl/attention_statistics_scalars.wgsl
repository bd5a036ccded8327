// attention_statistics_rows, element by element.
#import scalars
#import attention_statistics_rows
