"""Bank accounts, transfers, currencies and stocks."""

from callwright.evals.executed.world.basics import Function, State, ToolError, find, named, plain

# What one unit is worth in euros.
RATES = {
    "EUR": 1.0, "USD": 0.92, "GBP": 1.17, "JPY": 0.0061, "CHF": 1.05, "CAD": 0.68, "AUD": 0.6, "SEK": 0.088,
    "NOK": 0.086, "DKK": 0.134, "INR": 0.011, "PLN": 0.23, "CZK": 0.0398, "MXN": 0.051, "BRL": 0.171, "SGD": 0.69,
    "NZD": 0.55, "ZAR": 0.0494, "KRW": 0.00068, "TRY": 0.0262,
}  # fmt: skip
PRICES = {
    "AAPL": 212.4, "MSFT": 431.9, "TSLA": 254.1, "NVDA": 131.6, "AMZN": 198.7, "GOOG": 176.3, "META": 588.2,
    "NFLX": 701.5, "INTC": 24.8, "AMD": 148.9, "IBM": 221.3, "ORCL": 169.4, "SAP": 217.7, "SHEL": 66.2, "NKE": 78.5,
    "KO": 70.1, "PEP": 166.8, "DIS": 96.6, "BA": 153.2, "SBUX": 97.3,
}  # fmt: skip

START = {
    "accounts": {"checking": 12408.55, "savings": 30150.0, "credit": -214.9},
    "transfers": [],
    "stocks": PRICES,
}


def convert_currency(state: State, /, amount: float, source: str, target: str) -> State:
    """An amount in another currency."""
    source, target = find(RATES, source, "currency"), find(RATES, target, "currency")
    return {"amount": round(amount * RATES[source] / RATES[target], 2), "currency": target}


def get_stock_price(state: State, /, symbol: str) -> State:
    """The price of a stock."""
    symbol = find(state["stocks"], symbol, "stock")
    return {"symbol": symbol, "price": state["stocks"][symbol]}


def transfer_money(state: State, /, recipient: str, amount: float, note: str | None = None) -> str:
    """Send money from the checking account."""
    if amount <= 0:
        raise ToolError(f"an amount of {amount} cannot be sent")
    if amount > state["accounts"]["checking"]:
        raise ToolError("there is not enough money in the checking account")
    name = named(recipient, "recipient")
    state["accounts"]["checking"] = round(state["accounts"]["checking"] - amount, 2)
    state["transfers"].append({"to": name, "amount": round(amount, 2), "note": None if note is None else plain(note)})
    return f"{amount:.2f} dollars are on their way to {name}"


def get_balance(state: State, /, account: str) -> State:
    """The balance of an account."""
    name = find(state["accounts"], account, "account")
    return {"account": name, "balance": state["accounts"][name]}


def _listed(state: State, /, symbol: str) -> None:
    state["stocks"] = {symbol: 57.3, **state["stocks"]}


FUNCTIONS = {
    "convert_currency": Function(convert_currency, reads=True),
    "get_stock_price": Function(get_stock_price, reads=True, arrange=_listed),
    "transfer_money": Function(transfer_money),
    "get_balance": Function(get_balance, reads=True),
}
