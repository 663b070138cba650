// Package web is Hearth's page: the state of the process and its cluster, a query box with a graph, and how to send
// data. The page's sources are in app/: HTML, CSS and ES modules without a build step, embedded as they are.
//
// Flow: the browser loads / and ui/*, asks ui/state for what only this process knows, and everything else from the HTTP
// APIs that the process serves anyway (api/v1/..., ring), with the chosen tenant in X-Scope-OrgID.
//
// Invariants: the page asks nobody but its own server, by relative addresses, so that it works under a path prefix; it
// runs no inline script or style, which its Content-Security-Policy forbids; text from data is never read as HTML.
package web
