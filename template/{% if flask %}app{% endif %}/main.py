"""The application: `create_app` puts settings, pages and error pages together."""

from flask import Flask, Response, json, render_template, request
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix

from app.config import SITE_NAME, Settings, read_settings
from app.routes import pages


def create_app(settings: Settings | None = None) -> Flask:
    """Build the app; a test may hand in settings of its own."""
    settings = settings or read_settings()
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=settings.secret_key,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=settings.production,  # sent over https alone
    )
    app.jinja_env.globals["site_name"] = SITE_NAME
    app.register_blueprint(pages)
    app.register_error_handler(HTTPException, show_error)
    if settings.production:
        app.after_request(read_to_end)
        # nginx, and nobody else, can reach us there: believe its X-Forwarded headers.
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1)
    return app


def show_error(error: HTTPException) -> Response:
    """Answer an error with a page, or with JSON where JSON was asked for."""
    response = error.get_response()  # has the headers right, such as Allow
    if request.path.startswith("/items/"):
        response.data = json.dumps({"detail": error.description})
        response.mimetype = "application/json"
    else:
        response.data = render_template(
            "error.html", status=error.code, title=error.name
        )
    return response


def read_to_end(response: Response) -> Response:
    """Read what no page has read: some servers hang up on it, and nginx then says 502."""
    while request.environ["wsgi.input"].read(65536):
        pass
    return response


app = create_app()
