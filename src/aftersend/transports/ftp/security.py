"""TLS for FTP: a connection that becomes secure, and data connections that resume the control connection's session."""

from __future__ import annotations

import asyncio
import ssl

from aftersend.core.errors import ConfigurationError

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

CLOSE_LIMIT = 5.0
"""Seconds that the other side has to say goodbye in."""


class Context(ssl.SSLContext):
    """A client's context that resumes the session of the connection named last.

    vsftpd and others take a data connection only with the session of its control connection: else anybody could have
    connected to the port. asyncio has no place to name a session in, so it is put in where the connection is made.
    """

    resumed: ssl.SSLObject | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """As for any context, with the session to resume."""
        if self.resumed is not None:
            session = self.resumed.session
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)


def make_context(authorities: str) -> Context:
    """A context that verifies certificates and names by the system's authorities, or by these alone (PEM).

    Raises ConfigurationError.
    """
    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    if not authorities:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(cadata=authorities)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ConfigurationError(
            f"ca: certificates in PEM are wanted (-----BEGIN CERTIFICATE-----): {reason}"
        ) from None
    return context


async def secure(writer: asyncio.StreamWriter, context: Context, host: str) -> Streams:
    """The same connection under TLS. What came in the clear before it stays with the old reader, unread."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport = await loop.start_tls(
        writer.transport, protocol, context, server_hostname=host, ssl_shutdown_timeout=CLOSE_LIMIT
    )
    if transport is None:
        raise ConnectionResetError("the connection was closed")
    protocol.connection_made(transport)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def tls_object(writer: asyncio.StreamWriter) -> ssl.SSLObject | None:
    """What knows the session of a connection."""
    found = writer.get_extra_info("ssl_object")
    return found if isinstance(found, ssl.SSLObject) else None
