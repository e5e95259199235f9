"""The application: `create_app` puts settings, pages and error pages together."""

from functools import lru_cache

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline  # FastAPI whose /docs loads no CDN
from starlette.exceptions import HTTPException
from starlette.middleware.sessions import SessionMiddleware

from app.config import PROJECT, SITE_NAME, Settings, read_settings
from app.routes import api, pages, templates


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the app; a test may hand in settings of its own."""
    settings = settings or read_settings()
    app = FastAPIOffline(title=SITE_NAME, redoc_url=None)
    app.add_middleware(
        SessionMiddleware,
        secret_key=settings.secret_key,
        https_only=settings.production,
    )
    app.include_router(api)
    app.include_router(pages)
    app.mount("/static", StaticFiles(directory=PROJECT / "app/static"), name="static")
    templates.env.globals["path_to"] = lru_cache(app.url_path_for)  # remembers paths
    app.add_exception_handler(HTTPException, show_error)
    app.add_exception_handler(Exception, show_error)
    return app


async def show_error(request: Request, error: Exception) -> Response:
    """Answer an error with a page, or with JSON where JSON was asked for."""
    status = getattr(error, "status_code", 500)
    detail = getattr(error, "detail", "Internal Server Error")
    headers = getattr(error, "headers", None)
    if request.url.path.startswith("/items/"):
        return JSONResponse({"detail": detail}, status, headers)
    context = {"status": status, "title": detail}
    return templates.TemplateResponse(request, "error.html", context, status, headers)


app = create_app()
