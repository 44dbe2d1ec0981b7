"""A shop: products, a cart with coupons, and orders under way."""

from callwright.evals.executed.world.basics import Function, State, ToolError, find, key, lookup, plain

START = {
    "products": {"umbrella": 24.0, "umbrella, large": 39.0, "wall clock": 55.0},
    "coupons": ["HELLO10"],
    "cart": {},
    "coupon": None,
    "orders": {"QX-7001": "delivered on March 1"},
}
# What a product costs in its three kinds; a price limit leaves some of them.
KINDS = {"basic": 18.0, "classic": 74.0, "deluxe": 260.0}
PLACES = ("at the warehouse", "in the delivery van", "at the customs office", "at the parcel shop")


def add_to_cart(state: State, /, product: str, quantity: int) -> str:
    """Put a product into the cart, on top of what is there."""
    if quantity < 1:
        raise ToolError(f"{quantity} is no quantity")
    name = find(state["products"], product, "product")
    state["cart"][name] = state["cart"].get(name, 0) + quantity
    return f"{state['cart'][name]} {name} in the cart"


def track_order(state: State, /, order_id: str) -> State:
    """Where an order is."""
    found = find(state["orders"], order_id, "order")
    return {"order_id": found, "status": state["orders"][found]}


def search_products(state: State, /, query: str, max_price: float | None = None) -> list[State]:
    """The products whose names have all words of the query, up to a price."""
    words = key(query).split()
    if not words:
        raise ToolError("the query is empty")
    found = {name: price for name, price in state["products"].items() if all(word in key(name) for word in words)}
    return [
        {"product": name, "price": price} for name, price in found.items() if max_price is None or price <= max_price
    ]


def apply_coupon(state: State, /, code: str) -> str:
    """Use a coupon for the cart."""
    state["coupon"] = find(state["coupons"], code, "coupon")
    return f"{state['coupon']} is used for this cart"


def _sold(state: State, /, product: str, quantity: int) -> None:
    if lookup(state["products"], product) is None:
        state["products"][plain(product)] = 9.5


def _in_three_kinds(state: State, /, query: str, max_price: float | None = None) -> None:
    for kind, price in KINDS.items():
        state["products"][f"{plain(query)}, {kind}"] = price


def _under_way(state: State, /, order_id: str) -> None:
    state["orders"][order_id] = PLACES[len(state["orders"]) % len(PLACES)]


FUNCTIONS = {
    "add_to_cart": Function(add_to_cart, arrange=_sold),
    "track_order": Function(track_order, reads=True, arrange=_under_way),
    "search_products": Function(search_products, reads=True, arrange=_in_three_kinds),
    "apply_coupon": Function(apply_coupon, arrange=lambda state, /, code: state["coupons"].append(code)),
}
