package template

import (
	"fmt"
	"reflect"
	"slices"
	texttemplate "text/template"
	"text/template/parse"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// The functions that guards call. A template cannot call them: they are not known when it is parsed.
const (
	stepFunction  = "hearthStep"
	enterFunction = "hearthEnter"
	leaveFunction = "hearthLeave"
	sizeFunction  = "hearthSize"
)

// maxNesting is how deep parts of a template may be within each other.
const maxNesting = 100

// The work of a node of a template when it is executed, and of one that has the name of a method of histograms, which
// may go through all of its buckets.
const (
	workOfNode   = 128
	workOfMethod = 4096
)

// withArguments are the methods that a template may call with arguments, and whether the text that comes out may be
// longer than what goes in. All are of times and durations. Methods of histograms that have arguments are left out:
// they change the histogram, and Compact can make one with a thousand million buckets.
var withArguments = map[string]bool{
	"Format": true,
	"Add":    false, "AddDate": false, "After": false, "Before": false, "Compare": false, "Equal": false, "In": false,
	"Round": false, "Sub": false, "Truncate": false,
}

var ofHistograms = func() map[string]bool {
	names := map[string]bool{}
	for m := range reflect.TypeFor[*histogram.FloatHistogram]().Methods() {
		names[m.Name] = true
	}
	return names
}()

// guarding puts guards into a template.
type guarding struct {
	depth int
	fault error
}

// guard puts guards into all parts of t that can be repeated: bodies of loops, and whole templates, which can be called
// by their names. An error of kind TooLarge says that parts are nested too deep.
func guard(t *texttemplate.Template) error {
	for _, one := range t.Templates() {
		if one.Tree == nil || one.Tree.Root == nil {
			continue
		}
		var g guarding
		work := g.list(one.Tree.Root)
		if g.fault != nil {
			return g.fault
		}
		nodes := append([]parse.Node{call(enterFunction, work)}, one.Tree.Root.Nodes...)
		one.Tree.Root.Nodes = append(nodes, call(leaveFunction, 0))
	}
	return nil
}

// call is an action that calls a function of guards, which gives the empty text.
func call(name string, number int) parse.Node {
	text := fmt.Sprintf("{{%s %d}}", name, number)
	trees, err := parse.Parse("guard", text, "", "", map[string]any{name: 0})
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return trees["guard"].Root.Nodes[0]
}

// list puts guards into the nodes of l, and gives their work without that of loops inside, which count their own.
func (g *guarding) list(l *parse.ListNode) (work int) {
	if l == nil {
		return 0
	}
	if g.depth++; g.depth > maxNesting {
		g.fail(errs.TooLarge, "parts of a template may be nested %d deep", maxNesting)
	}
	defer func() { g.depth-- }()
	if g.fault != nil {
		return 0
	}
	for _, n := range l.Nodes {
		work += g.node(n)
	}
	return work
}

func (g *guarding) fail(kind errs.Kind, format string, args ...any) {
	if g.fault == nil {
		g.fault = errs.E(kind, format, args...)
	}
}

func (g *guarding) node(n parse.Node) int {
	work := workOfNode
	switch n := n.(type) {
	case *parse.TextNode:
		work += len(n.Text)
	case *parse.ActionNode:
		work += g.pipe(n.Pipe)
	case *parse.TemplateNode:
		work += g.pipe(n.Pipe)
	case *parse.IfNode:
		work += g.branch(&n.BranchNode)
	case *parse.WithNode:
		work += g.branch(&n.BranchNode)
	case *parse.RangeNode:
		work += g.pipe(n.Pipe) + g.list(n.ElseList)
		inside := g.list(n.List)
		n.List.Nodes = append([]parse.Node{call(stepFunction, inside+workOfNode)}, n.List.Nodes...)
	}
	return work
}

func (g *guarding) branch(n *parse.BranchNode) int {
	return g.pipe(n.Pipe) + g.list(n.List) + g.list(n.ElseList)
}

// pipe puts a guard behind each command whose text may grow.
func (g *guarding) pipe(p *parse.PipeNode) (work int) {
	if p == nil {
		return 0
	}
	if g.depth++; g.depth > maxNesting {
		g.fail(errs.TooLarge, "parts of a template may be nested %d deep", maxNesting)
	}
	defer func() { g.depth-- }()
	if g.fault != nil {
		return 0
	}
	for i := 0; i < len(p.Cmds); i++ {
		c := p.Cmds[i]
		for _, arg := range c.Args {
			work += g.argument(arg)
		}
		method := methodOf(c.Args[0])
		if method == "" || len(c.Args) == 1 && i == 0 {
			continue
		}
		grows, known := withArguments[method]
		if !known {
			g.fail(errs.Invalid, "a template cannot call %s with arguments: only methods of times and durations have them",
				method)
		}
		if grows {
			i++
			p.Cmds = slices.Insert(p.Cmds, i, sized())
		}
	}
	return work
}

// sized is a command that fails if what comes from the one before is too large.
func sized() *parse.CommandNode {
	return call(sizeFunction, 0).(*parse.ActionNode).Pipe.Cmds[0]
}

// methodOf is the last name of a field, which may be a method.
func methodOf(n parse.Node) string {
	var names []string
	switch n := n.(type) {
	case *parse.FieldNode:
		names = n.Ident
	case *parse.VariableNode:
		names = n.Ident[1:]
	case *parse.ChainNode:
		names = n.Field
	}
	if len(names) == 0 {
		return ""
	}
	return names[len(names)-1]
}

func (g *guarding) argument(n parse.Node) int {
	work := workOfNode
	var names []string
	switch n := n.(type) {
	case *parse.PipeNode:
		work += g.pipe(n)
	case *parse.ChainNode:
		work += g.argument(n.Node)
		names = n.Field
	case *parse.FieldNode:
		names = n.Ident
	case *parse.VariableNode:
		names = n.Ident
	case *parse.StringNode:
		work += len(n.Text)
	}
	for _, name := range names {
		work += workOfNode
		if ofHistograms[name] {
			work += workOfMethod
		}
	}
	return work
}
