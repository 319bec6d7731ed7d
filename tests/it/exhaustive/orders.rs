//! The orders in which the steps of several actors can happen.

/// Who takes a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Actor {
    FirstWorker,
    SecondWorker,
    Tenant,
    /// The first worker's call is applied, after it was given up.
    LateCall,
    /// Takes the first worker for dead.
    Rescuer,
}

/// An actor for each of its steps.
pub(super) fn each(steps: &[(Actor, usize)]) -> Vec<Actor> {
    steps.iter().flat_map(|(actor, count)| std::iter::repeat_n(*actor, *count)).collect()
}

/// Every order of these steps that can happen: a call lands only after it was sent, and a worker is taken
/// for dead only after it has claimed.
pub(super) fn orders(steps: &[Actor]) -> Vec<Vec<Actor>> {
    let mut found = Vec::new();
    extend(&mut Vec::new(), steps, &mut found);
    found
}

fn extend(order: &mut Vec<Actor>, rest: &[Actor], found: &mut Vec<Vec<Actor>>) {
    if rest.is_empty() {
        found.push(order.clone());
        return;
    }
    let mut tried = Vec::new();
    for (place, actor) in rest.iter().enumerate() {
        if tried.contains(actor) || !may_follow(order, *actor) {
            continue;
        }
        tried.push(*actor);
        let mut others = rest.to_vec();
        others.remove(place);
        order.push(*actor);
        extend(order, &others, found);
        order.pop();
    }
}

fn may_follow(order: &[Actor], actor: Actor) -> bool {
    let first_steps = order.iter().filter(|one| **one == Actor::FirstWorker).count();
    match actor {
        // Both workers are alike: the first one is the one that begins.
        Actor::SecondWorker => first_steps > 0,
        Actor::LateCall => first_steps >= 2,
        Actor::Rescuer => first_steps >= 1,
        Actor::FirstWorker | Actor::Tenant => true,
    }
}
