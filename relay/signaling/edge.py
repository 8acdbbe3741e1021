"""One aiohttp application for everything this relay answers over HTTP."""

from aiohttp import web

from relay.signaling.client_api import MAX_BODY_BYTES, ClientApi
from relay.signaling.cross_origin import CrossOrigin
from relay.signaling.livekit.http import LivekitHttp
from relay.signaling.livekit.twirp import Twirp
from relay.signaling.quality_api import QualityApi
from relay.signaling.web_files import WebFiles


def application(
    livekit: LivekitHttp,
    twirp: Twirp,
    client_api: ClientApi,
    quality_api: QualityApi,
    files: WebFiles,
    cross_origin: CrossOrigin,
    observed: list[web.RouteDef],
) -> web.Application:
    """Return the application: health and metrics by their routes, then signalling, the page's calls, its files."""

    async def anything(request: web.Request) -> web.StreamResponse:
        handler = livekit.handler_of(request.path) or twirp.handler_of(request.path)
        if handler is not None:
            return await handler(request)
        if (answer := quality_api.respond(request)) is not None:
            return answer
        if (preflight := cross_origin.preflight(request)) is not None:
            return preflight
        response = await client_api.respond(request) or files.respond(request)
        if response is None:
            response = web.Response(status=404, text="Not found.\n")
        response.headers.update(cross_origin.headers(request))
        return response

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.add_routes(observed)
    # A path like //rtc matches no pattern of the router, so it is taken apart by us.
    app.router.add_route("*", "/{path:.*}", anything)
    return app
