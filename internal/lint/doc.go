// Package lint holds the rules of the house as Go tests: the layers of DESIGN section 2, package comments, comments on
// exported symbols, and who may import what. It has no code of its own.
package lint
