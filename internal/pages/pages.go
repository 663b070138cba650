// Package pages reads the documentation for the tests that keep it true: its links, and the commands, files, flags,
// metrics and queries that it shows. CONTRIBUTING.md says how a page marks what tests try.
package pages

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
)

// Page is one Markdown file.
type Page struct {
	// Path is relative to the repository's root.
	Path string

	blocks []Block
	lines  []string // lines of blocks are empty
}

// Block is what stands between two fences.
type Block struct {
	// Page and Line are where it begins.
	Page string
	Line int
	// Kind is what the first fence says: "sh", "yaml limits".
	Kind string
	// Text has no more indentation than the fence.
	Text string
}

// Code is text between backticks, or a query, with its place.
type Code struct {
	Page string
	Line int
	Text string
}

// Link leads to another file or to a heading.
type Link struct {
	Page   string
	Line   int
	Target string
}

// Read reads README.md, CONTRIBUTING.md and all pages below docs of the repository at root.
func Read(root string) ([]Page, error) {
	var all []Page
	add := func(path string) error {
		raw, err := os.ReadFile(filepath.Join(root, path))
		if err == nil {
			all = append(all, parse(path, string(raw)))
		}
		return err
	}
	for _, path := range []string{"README.md", "CONTRIBUTING.md"} {
		if err := add(path); err != nil {
			return nil, err
		}
	}
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".md" {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return add(rel)
	})
	return all, err
}

// ForOperators reports whether somebody who runs Hearth follows the page.
func (p Page) ForOperators() bool {
	return p.Path == "README.md" || strings.HasPrefix(filepath.ToSlash(p.Path), "docs/operate/")
}

// Blocks are what stands between fences.
func (p Page) Blocks() []Block { return p.blocks }

func parse(path, text string) Page {
	p := Page{Path: path}
	var open *Block
	indent := ""
	for i, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimLeft(line, " ")
		fence := strings.HasPrefix(trimmed, "```")
		switch {
		case fence && open == nil:
			indent = line[:len(line)-len(trimmed)]
			open = &Block{Page: path, Line: i + 1, Kind: strings.TrimSpace(strings.TrimPrefix(trimmed, "```"))}
		case fence:
			p.blocks = append(p.blocks, *open)
			open = nil
		case open != nil:
			open.Text += strings.TrimPrefix(line, indent) + "\n"
		default:
			p.lines = append(p.lines, line)
			continue
		}
		p.lines = append(p.lines, "")
	}
	return p
}

// Code is all text between backticks, outside of blocks.
func (p Page) Code() (all []Code) {
	for i, line := range p.lines {
		for _, text := range codeIn(line) {
			all = append(all, Code{p.Path, i + 1, text})
		}
	}
	return all
}

// codeIn is what one line has between one or two backticks.
func codeIn(line string) (all []string) {
	for {
		_, rest, ok := strings.Cut(line, "`")
		if !ok {
			return all
		}
		fence := "`"
		if strings.HasPrefix(rest, "`") {
			rest, fence = rest[1:], "``"
		}
		text, after, ok := strings.Cut(rest, fence)
		if !ok {
			return all
		}
		all, line = append(all, text), after
	}
}

// Queries are the lines of blocks of kind "promql" that are no comments, and the code in table columns whose head is
// "query".
func (p Page) Queries() (all []Code) {
	for _, b := range p.blocks {
		if b.Kind == "promql" {
			all = append(all, Code{b.Page, b.Line, b.Text})
		}
	}
	column := -1
	for i, line := range p.lines {
		cells := cellsOf(line)
		if cells == nil {
			column = -1
			continue
		}
		if column < 0 {
			for c, cell := range cells {
				if cell == "query" {
					column = c
				}
			}
			continue
		}
		if column < len(cells) {
			for _, text := range codeIn(cells[column]) {
				all = append(all, Code{p.Path, i + 1, text})
			}
		}
	}
	return all
}

// Rows are the cells of each row of the tables whose first row begins with the cell head, without that first row.
func (p Page) Rows(head string) (rows [][]string) {
	inside := false
	for _, line := range p.lines {
		cells := cellsOf(line)
		switch {
		case cells == nil:
			inside = false
		case cells[0] == head:
			inside = true
		case inside && strings.Trim(cells[0], "-: ") != "" || inside && len(cells) > 1 && strings.Trim(cells[1], "-: ") != "":
			rows = append(rows, cells)
		}
	}
	return rows
}

// cellsOf are the cells of a row of a table, nil for any other line. A | inside of code does not end a cell.
func cellsOf(line string) (cells []string) {
	line = strings.TrimSpace(line)
	if !strings.HasPrefix(line, "|") {
		return nil
	}
	cell, code := "", false
	for _, r := range line[1:] {
		switch {
		case r == '|' && !code:
			cells, cell = append(cells, strings.TrimSpace(cell)), ""
			continue
		case r == '`':
			code = !code
		}
		cell += string(r)
	}
	return cells
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// Links are the links outside of blocks.
func (p Page) Links() (all []Link) {
	for i, line := range p.lines {
		for _, m := range link.FindAllStringSubmatch(line, -1) {
			all = append(all, Link{p.Path, i + 1, m[1]})
		}
	}
	return all
}

// Anchors are the names by which links reach the headings of the page, as GitHub makes them.
func (p Page) Anchors() map[string]bool {
	anchors := map[string]bool{}
	for _, line := range p.lines {
		title := strings.TrimLeft(line, "#")
		if title == line || !strings.HasPrefix(title, " ") {
			continue
		}
		var name strings.Builder
		for _, r := range strings.ToLower(strings.TrimSpace(title)) {
			switch {
			case r == ' ':
				name.WriteByte('-')
			case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
				name.WriteRune(r)
			}
		}
		anchors[name.String()] = true
	}
	return anchors
}
