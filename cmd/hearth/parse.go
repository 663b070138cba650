package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/alecthomas/kingpin/v2"
)

// explain adds to an error of app.Parse what kingpin leaves out of it: the flag whose value is wrong, and where that value
// is from; that a word which is no flag was taken for a command. all is args with those of the configuration file.
func explain(app *kingpin.Application, args, all []string, err error) error {
	context, parseErr := app.ParseContext(all)
	if parseErr != nil {
		if _, alone := app.ParseContext(args); alone == nil {
			return fmt.Errorf("--config.file: %w", err)
		}
		if word, ok := strings.CutPrefix(parseErr.Error(), "unexpected "); ok {
			if app.GetCommand(word) != nil {
				return fmt.Errorf("the command goes first: hearth %s --flag", word)
			}
			if strings.ContainsAny(word, " \n:={") { // a part of a configuration, of which it may be the secret
				return errors.New("unexpected argument, of several words: neither a command nor a flag; is a value quoted as one argument, and its flag spelt right?")
			}
			return fmt.Errorf("unexpected argument %q: neither a command nor a flag", word)
		}
		return err
	}
	given := map[string]bool{}
	for _, e := range context.Elements {
		if f, ok := e.Clause.(*kingpin.FlagClause); ok && e.Value != nil {
			m := f.Model()
			given[m.Name] = true
			if wrong(m, *e.Value, err) {
				return fmt.Errorf("--%s: %w", m.Name, err)
			}
		}
	}
	command := ""
	if context.SelectedCommand != nil {
		command = context.SelectedCommand.FullCommand()
	}
	for _, m := range flagModels(app, command) {
		if v := os.Getenv(m.Envar); v != "" && !given[m.Name] && wrong(m, v, err) {
			return fmt.Errorf("%s (--%s): %w", m.Envar, m.Name, err)
		}
	}
	return err
}

// wrong reports whether err is what the flag says of value. Flags are of no use after that.
func wrong(m *kingpin.FlagModel, value string, err error) bool {
	again := m.Value.Set(value)
	return again != nil && again.Error() == err.Error()
}

// flagModels are the flags that a command has, with those of all commands.
func flagModels(app *kingpin.Application, command string) []*kingpin.FlagModel {
	model := app.Model()
	flags := model.Flags
	for _, c := range model.Commands {
		if c.FullCommand == command {
			flags = append(flags, c.Flags...)
		}
	}
	return flags
}
