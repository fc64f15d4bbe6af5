"""Who may call, and from where.

The checks replace those of Jupyter's own ``prepare`` because that one redirects to a login page, answers 403 where the
reference says 401, and 404 where it says 403; what decides is still Jupyter's identity provider, authorizer and
configuration of hosts and origins.
"""

from __future__ import annotations

from typing import ClassVar

from jupyter_server.auth.utils import HTTP_METHOD_TO_AUTH_ACTION
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import ensure_async
from tornado.web import HTTPError, RequestHandler

from .failure import Refused

READS = frozenset({"GET", "HEAD", "OPTIONS"})


class Access(JupyterHandler):
    """Identity, origin, permission and forgery; :class:`~.base.Guarded` asks in the right order."""

    auth_resource = "cambio_lab"
    public: ClassVar[bool] = False
    """Answered without a token."""
    _has_cookie = False

    async def identify(self) -> None:
        """Who calls, from where; a foreign page may not even ask."""
        if not self.check_host():
            raise Refused(403, "This server does not answer to the name in the Host header.")
        user = await ensure_async(self.identity_provider.get_user(self))
        self.current_user = self._jupyter_current_user = user
        if user is None and not self.public and self.request.method != "OPTIONS":
            raise Refused(401, headers={"WWW-Authenticate": 'Bearer realm="cambio_lab"'})
        self._has_cookie = user is not None and (
            not self.token_authenticated or await ensure_async(self.identity_provider.get_user_cookie(self)) is not None
        )
        self._refuse_foreign_origins()
        self.set_cors_headers()

    def _refuse_foreign_origins(self) -> None:
        """A page of another origin may not call with the user's cookie, nor where no token is asked for."""
        if self.public or self.request.method == "OPTIONS":
            return
        if not self.check_origin():
            raise Refused(403, "Pages of this origin may not call this server.")
        changes = self.request.method not in READS or self.upgrading
        if changes and not (self.same_site or self.token_authenticated or self.allowed_origin):
            raise Refused(403, "A page of another site may not do this.")

    @property
    def upgrading(self) -> bool:
        """A WebSocket handshake."""
        return str(self.request.headers.get("Upgrade", "")).lower() == "websocket"

    @property
    def same_site(self) -> bool:
        """The browser says the request came from our own page or from the user; a program says nothing."""
        return self.request.headers.get("Sec-Fetch-Site", "none") in {"same-origin", "none"}

    @property
    def allowed_origin(self) -> bool:
        """The server's configuration of ``allow_origin`` names this request's Origin."""
        configured = bool(self.allow_origin or self.allow_origin_pat)
        return configured and self.get_origin() is not None and bool(self.check_origin())

    async def authorize(self) -> None:
        """The caller may do this, and no page made its browser do it."""
        action = HTTP_METHOD_TO_AUTH_ACTION["WEBSOCKET" if self.upgrading else self.request.method]
        user = self.current_user
        if not await ensure_async(self.authorizer.is_authorized(self, user, action, self.auth_resource)):
            raise Refused(403, f"You may not {action} the resource {self.auth_resource}.")
        if self.request.method not in READS:
            self.check_xsrf_cookie()

    def check_xsrf_cookie(self) -> None:
        """Jupyter's check, except where no token is asked for.

        The reference's clients send neither token nor cookie. With authentication off, a request may pass when no
        page of another site can have sent it: its origin was checked before, and a body that is JSON (or a method
        other than POST) makes a browser ask first, which we never grant.
        """
        if not hasattr(self, "_jupyter_current_user") or self.token_authenticated:
            return
        if not self.identity_provider.auth_enabled and self.same_site and self._origin_is_ours():
            if self.request.method != "POST" or self.is_json:
                return
            raise Refused(415)
        try:
            super().check_xsrf_cookie()
        except HTTPError:
            raise Refused(
                403, "The X-XSRFToken header is missing or wrong; a request with a token needs none."
            ) from None

    def _xsrf_matches(self) -> bool:
        """The request repeats the XSRF cookie in a header, as only a page of this server can."""
        if "X-XSRFToken" not in self.request.headers or not self.get_cookie("_xsrf"):
            return False
        try:
            RequestHandler.check_xsrf_cookie(self)  # Jupyter's takes a Referer for it
        except HTTPError:
            return False
        return True

    def _origin_is_ours(self) -> bool:
        origin = self.get_origin()
        return origin is None or bool(self.check_origin())

    @property
    def is_json(self) -> bool:
        """The body says that it is JSON."""
        kind = str(self.request.headers.get("Content-Type", "")).partition(";")[0].strip().lower()
        return kind == "application/json" or kind.endswith("+json")

    @property
    def own_page(self) -> bool:
        """A browser page of this server sent this, with the login's cookie.

        A page elsewhere can forge neither ``Origin`` nor ``Sec-Fetch-Site``, and cannot read the XSRF cookie. A
        handshake with the cookie and no ``Origin`` is no page's; who holds the cookie may do what the page may.
        """
        if self.public or not self._has_cookie or not self._origin_is_ours():
            return False
        site = self.request.headers.get("Sec-Fetch-Site")
        if site is not None:
            return bool(site == "same-origin")
        if self.get_origin() is not None or self._xsrf_matches():
            return True
        return self.upgrading and bool(self.identity_provider.auth_enabled)

    def set_cors_headers(self) -> None:
        """Only what ``allow_origin`` says: a token is for programs, so it opens nothing to pages elsewhere."""
        if self.allow_origin or self.allow_origin_pat:
            super().set_cors_headers()
