"""What tests of pages share: is the HTML well-formed?"""

from html.parser import HTMLParser


class Balance(HTMLParser):
    """Notes tags that are closed in another order than they were opened."""

    VOID = {"meta", "br", "img", "link", "input"}

    def __init__(self):
        super().__init__()
        self.open, self.scripts, self.images, self.references = [], 0, 0, []

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.images += tag == "img"
        self.references += [value for key, value in attrs if key in ("src", "href", "xlink:href") and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
