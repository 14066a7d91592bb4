# The public names and where they are. Methods are not listed: `scalehsi.models.catalogue` has them.
import typing

def __getattr__(name: str) -> typing.Any: ...
