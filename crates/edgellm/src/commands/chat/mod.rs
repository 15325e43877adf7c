//! `edgellm chat`: a conversation.

mod conversation;
mod input;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use engine::generate::{FinishReason, GenerateOptions};

use super::load;
use crate::args::ChatArgs;
use crate::output::{self, Output};
use conversation::Conversation;
use input::{Input, Line};

/// Set by Ctrl-C while an answer is written.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

const HELP: &str = "\
/help            this list
/system TEXT     the system's message from now on; without TEXT none
/retry           another answer to the last question
/clear           forget the conversation
/exit            leave, as Ctrl-D does
A line that ends in \\ goes on in the next. Ctrl-C stops an answer.";

/// Answers one question, or all lines of the input until it ends.
pub(crate) fn run(args: &ChatArgs, out: &mut Output) -> Result<()> {
    let chat_template = args.chat_template.as_deref().map(load::file).transpose()?;
    let model = load::model_with_template(&args.model, chat_template)?;
    let options = GenerateOptions {
        max_tokens: args.max_tokens,
        sampling: load::sampling(&args.sampling),
        stop: args.sampling.stop.clone(),
        ignore_eos: false,
        draft: 0,
    };
    load::note_seed(&options.sampling);
    let mut conversation = Conversation::new(&model, options, args.context)?;
    conversation.set_system(args.system.clone());
    if let Some(question) = &args.prompt {
        return answer(&mut conversation, &load::text(question)?, out);
    }
    let mut input = Input::from_stdin()?;
    if input.is_terminal() {
        // Only here: where no one sits at a terminal, Ctrl-C ends the program.
        ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed)).context("cannot catch Ctrl-C")?;
        output::note(&format!("{}: /help tells what can be typed, Ctrl-D leaves", args.model.model));
    }
    loop {
        let flow = match input.next()? {
            Line::Text(line) => turn(&mut conversation, line.trim(), out),
            Line::Interrupted => {
                output::note("Ctrl-D or /exit leaves");
                continue;
            }
            Line::End => return Ok(()),
        };
        match flow {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => return Ok(()),
            // A question that cannot be answered (too long, say) does not end a conversation at a terminal.
            Err(err) if input.is_terminal() && !output::is_closed_pipe(&err) => output::error(&err, None),
            Err(err) => return Err(err),
        }
    }
}

/// Carries out one line: a command or a question.
fn turn(conversation: &mut Conversation<'_>, line: &str, out: &mut Output) -> Result<ControlFlow<()>> {
    let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    match command {
        "" => {}
        "/help" => output::note(HELP),
        "/exit" | "/quit" => return Ok(ControlFlow::Break(())),
        "/clear" => conversation.clear(),
        "/system" => conversation.set_system(Some(rest.trim().to_owned()).filter(|text| !text.is_empty())),
        "/retry" => match conversation.take_last_question() {
            Some(question) => answer(conversation, &question, out)?,
            None => output::note("there is no question yet"),
        },
        unknown if unknown.starts_with('/') => output::note(&format!("{unknown} is unknown: see /help")),
        _ => answer(conversation, line, out)?,
    }
    Ok(ControlFlow::Continue(()))
}

/// Streams the answer to a question.
fn answer(conversation: &mut Conversation<'_>, question: &str, out: &mut Output) -> Result<()> {
    INTERRUPTED.store(false, Ordering::Relaxed);
    let mut broken = Ok(());
    let answered = conversation.answer(question, &mut |text| {
        broken = out.bytes(text.as_bytes()).and_then(|()| out.flush());
        if broken.is_err() || INTERRUPTED.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    broken?;
    out.line("")?;
    out.flush()?;
    if answered.forgotten > 0 {
        output::note(&format!("the context was full: {} messages were forgotten", answered.forgotten));
    }
    match answered.finish_reason {
        FinishReason::Length => output::note("the answer was cut: -n or the context was reached"),
        FinishReason::Cancelled => output::note("stopped"),
        FinishReason::Stop => {}
    }
    Ok(())
}
