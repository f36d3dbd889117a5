"""What a request asks for in its address: the options of a project's dataclass, with their types and bounds."""

import dataclasses
from collections.abc import Callable
from typing import Any, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from starlette.datastructures import QueryParams

from core.serving.limits import Refused

_BOUNDS = {"low": "ge", "high": "le", "above": "gt", "below": "lt"}  # as pydantic calls them


def query_model(options: type) -> type[BaseModel]:
    """A dataclass of options as pydantic's model, with the same types, bounds and descriptions."""
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        bounds = {_BOUNDS[name]: bound for name, bound in field.metadata["bounds"].items() if bound is not None}
        about = Field(field.default, description=field.metadata["help"], **bounds)
        fields[field.name] = (get_type_hints(options)[field.name], about)
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    return create_model(options.__name__, __config__=config, **fields)


def query_reader(options: type) -> Callable[[QueryParams], Any]:
    """What makes a dataclass of options from an address. It raises Refused, naming the option.

    Of an option that is given several times the last value counts, unless it takes several.
    """
    model = query_model(options)
    takes_several = {name for name, kind in get_type_hints(options).items() if get_origin(kind) is tuple}

    def read(query: QueryParams) -> Any:
        given = {name: query.getlist(name) if name in takes_several else query[name] for name in query}
        try:
            return options(**dict(model.model_validate(given)))
        except ValidationError as error:
            first = error.errors()[0]
            message = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise Refused(422, "wrong_option", message) from error

    return read
