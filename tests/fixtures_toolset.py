"""A small toolset file for the tests of what is said about toolsets."""

TOOLSET = """
domains:
  cafe:
    order:
      description: Order something to drink at the counter.
      parameters: {drink: {type: string, description: Its name}}
      values: {drink: [tea, coffee]}
      phrasings: ["Order something to drink at the counter, {drink}", "{drink}, please"]
"""
