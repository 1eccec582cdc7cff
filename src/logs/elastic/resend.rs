//! Dead letters on their way once more, as they are: with the index and the id that they had.

use serde_json::json;

use super::{
    Elastic,
    answer::{Answer, Verdict},
};
use crate::logs::{
    dead_letters::desk::{Filter, Letter, Resent},
    output::wall_clock,
    ship::off_thread,
};

impl Elastic {
    /// Sends every letter that fits once; one such errand at a time. What the server has now is no letter any more: it is taken
    /// out only then, so that after a crash it is sent again and answered with 409.
    pub async fn resend(&self, filter: Filter) -> Result<Resent, String> {
        let Ok(_alone) = self.resending.try_lock() else {
            return Err("dead letters are being sent again already: wait until that is over".into());
        };
        let (mut resent, mut before) = (Resent::default(), None);
        loop {
            let (letters, asked) = (self.dead_letters.clone(), filter.clone());
            let page = off_thread(move || letters.page(&asked, before)).await;
            let (letters, next) = page.map_err(|error| error.to_string())?;
            if !self.resend_page(letters, &mut resent).await? {
                return Ok(resent);
            }
            match next {
                Some(next) if Some(next) != before => before = Some(next),
                _ => return Ok(resent),
            }
        }
    }

    /// Whether the server answers well enough to go on.
    async fn resend_page(&self, letters: Vec<Letter>, resent: &mut Resent) -> Result<bool, String> {
        // Groups still to be sent; one is split when the server refuses it whole.
        let mut groups = vec![letters];
        while let Some(mut group) = groups.pop() {
            if group.is_empty() {
                continue;
            }
            let body: Vec<u8> = group.iter().flat_map(item).collect();
            let answer = {
                let _pass = self.window.enter().await;
                self.send_plain(body.into(), group.len()).await
            };
            let verdicts = match answer {
                Answer::AllDone => vec![Verdict::Done; group.len()],
                Answer::Items(verdicts) => verdicts.into_iter().map(|(_, verdict)| verdict).collect(),
                Answer::Retry(reason) | Answer::Hold(reason) => {
                    let left: usize = groups.iter().map(Vec::len).sum();
                    resent.waiting += (group.len() + left) as u64;
                    resent.reason = Some(format!("{}; what was not sent stays as it is", reason.text));
                    return Ok(false);
                }
                Answer::Split(reason) if group.len() == 1 => vec![Verdict::Reject(reason, None)],
                Answer::Split(_) => {
                    let right = group.split_off(group.len() / 2);
                    groups.extend([right, group]);
                    continue;
                }
            };
            self.settle_letters(group, verdicts, resent).await?;
        }
        Ok(true)
    }

    async fn settle_letters(
        &self,
        group: Vec<Letter>,
        verdicts: Vec<Verdict>,
        resent: &mut Resent,
    ) -> Result<(), String> {
        let (mut done, mut refused) = (Vec::new(), Vec::new());
        for (letter, verdict) in group.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Done => {
                    resent.accepted += 1;
                    done.push(letter.key);
                }
                Verdict::Reject(why, _) => {
                    resent.refused += 1;
                    resent.reason = Some(why.clone());
                    if letter.reason != why {
                        refused.push((letter, why));
                    }
                }
                Verdict::Retry(why) | Verdict::Hold(why) => {
                    resent.waiting += 1;
                    resent.reason = Some(why.text);
                }
            }
        }
        self.bulk.resent.inc_by(done.len() as u64);
        let letters = self.dead_letters.clone();
        let settle = move || {
            letters.remove(&done)?;
            letters.refused_again(&refused, wall_clock())
        };
        off_thread(settle).await.map_err(|error| error.to_string())
    }
}

/// The letter in bulk form.
fn item(letter: &Letter) -> Vec<u8> {
    let mut target = json!({"_index": letter.index});
    if let Some(id) = &letter.id {
        target["_id"] = json!(id);
    }
    format!("{}\n{}\n", json!({"create": target}), letter.document).into_bytes()
}
