"""What can go wrong with money.

MoneyError
├ UsageError            a provider reported an absurd count
├ InvoiceError          an invoice that cannot be understood
├ ReportError           a question about costs that cannot be answered as asked
├ PriceError            a price file that cannot be read
│ └ UnknownPrice        a model whose price nobody states
└ LedgerError           nothing can be recorded now; the records are kept and tried again
  ├ LedgerRefused       this database will never do: newer schema, not a ledger
  └ UnwritableRecord    this one record cannot be stored; the others were
"""

from __future__ import annotations


class MoneyError(Exception):
    """Root of the errors of this part."""


class UsageError(MoneyError):
    """A provider reported a count of tokens that cannot be true."""


class PriceError(MoneyError):
    """Prices that cannot be read."""


class UnknownPrice(PriceError):
    """A model has no price; the message says what to write."""


class LedgerError(MoneyError):
    """The ledger cannot record: disk full, locked, read-only, closed."""


class LedgerRefused(LedgerError):
    """The database is of a newer version, or no ledger at all."""


class UnwritableRecord(LedgerError):
    """A single record holds a value that the database cannot take."""


class InvoiceError(MoneyError):
    """A provider's invoice that cannot be understood; the message says which line and why."""


class ReportError(MoneyError):
    """A report was asked for in a way that cannot be answered."""
