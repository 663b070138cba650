// Package web is Hearth's page: the state of the process and its cluster, a query box with a graph, and how to send
// data. The page's sources are in app/: HTML, CSS and ES modules without a build step, embedded as they are.
//
// Flow: the browser loads / or /blocks, and ui/*. The page asks ui/state for what only this process knows. All else
// comes from the HTTP APIs that the process has anyway (api/v1/..., ring), with the chosen tenant in X-Scope-OrgID.
//
// Invariants: the page asks only its own server, by relative addresses, so that it works under a path prefix. It runs
// no inline script or style, since its Content-Security-Policy forbids them. Text from data is never read as HTML.
package web
